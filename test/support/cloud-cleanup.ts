/** Takes a test project's objects and images away: they are held in memory. */
import type { Identity } from '../../scripts/cloud.d/identity.ts';

/** Removes every object and container of an account. Throws when one stays. */
export async function emptyAccount(accountUrl: string, user: Identity): Promise<void> {
  const names = async (url: string): Promise<string[]> => {
    const answer = await user.request('GET', `${url}?format=json`);
    if (answer.status >= 300) return [];
    return (JSON.parse(answer.text) as { name?: string }[]).flatMap(({ name }) => name ?? []);
  };
  const at = (...parts: string[]) => [accountUrl, ...parts.map(encodeURIComponent)].join('/');
  for (const container of await names(accountUrl)) {
    for (let left = await names(at(container)); left.length > 0; left = await names(at(container)))
      for (const name of left) {
        const { status } = await user.request('DELETE', at(container, name));
        if (status >= 300 && status !== 404) throw new Error(`cannot delete ${container}/${name}: ${status}`);
      }
    await user.request('DELETE', at(container));
  }
}

/** Removes the project's images, hidden and protected ones too, as the administrator. */
export async function removeImages(imageUrl: string, projectId: string, admin: Identity): Promise<void> {
  for (const hidden of ['false', 'true']) {
    const list = `${imageUrl}/v2/images?owner=${projectId}&os_hidden=${hidden}&limit=1000`;
    const { images } = JSON.parse((await admin.request('GET', list)).text) as {
      images: { id: string; protected: boolean }[];
    };
    for (const image of images) {
      const url = `${imageUrl}/v2/images/${image.id}`;
      if (image.protected)
        await admin.request('PATCH', url, {
          headers: { 'content-type': 'application/openstack-images-v2.1-json-patch' },
          body: [{ op: 'replace', path: '/protected', value: false }],
        });
      await admin.request('DELETE', url);
    }
  }
}
