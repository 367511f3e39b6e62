/** Who we are to Google: application default credentials, and where its services are. */
import type { Storage } from '@google-cloud/storage';
import type { GoogleAuth } from 'google-auth-library';
import { checkEndpoint } from '../endpoint.ts';

const SCOPE = 'https://www.googleapis.com/auth/cloud-platform';

/** The login of this user. Reads nothing yet; each request reads, fetches and renews what it needs. */
export async function googleAuth(project?: string): Promise<GoogleAuth> {
  // not loaded by the many runs that do not go to Google
  const { GoogleAuth } = await import('google-auth-library');
  return new GoogleAuth({
    scopes: [SCOPE],
    // a token may be revoked, or this clock may be wrong
    clientOptions: { forceRefreshOnFailure: true },
    // Calls for objects name no project; without any, the library asks a metadata server for seconds.
    projectId: project ?? '-',
  });
}

/** Cloud Storage. A loopback `endpoint` is asked without a login, as emulators want it. */
export async function openStorage(options: {
  project?: string | undefined;
  endpoint?: string | undefined;
  auth?: GoogleAuth | undefined;
}): Promise<Storage> {
  const { Storage } = await import('@google-cloud/storage');
  const { project, endpoint, auth } = options;
  return new Storage({
    ...(project === undefined ? {} : { projectId: project }),
    ...(auth === undefined ? {} : { authClient: auth }),
    ...(endpoint === undefined
      ? {}
      : {
          apiEndpoint: checkEndpoint(endpoint),
          useAuthWithCustomEndpoint: endpoint.startsWith('https:'),
        }),
    // ours are the attempts and the pauses
    retryOptions: { autoRetry: false },
  });
}
