/** S3 for tests: moto (https://docs.getmoto.org) with one bucket. */
import { CreateBucketCommand, ListObjectsV2Command, S3Client } from '@aws-sdk/client-s3';
import { startMoto } from '../tools/ebs/moto.ts';

/** Starts it; returns when it answers. */
export async function startMotoS3(program: string, bucket: string) {
  const moto = await startMoto(program);
  const client = new S3Client({
    endpoint: moto.url,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
  });
  await client.send(new CreateBucketCommand({ Bucket: bucket }));
  return {
    url: moto.url,
    client,
    keys: async (): Promise<string[]> =>
      ((await client.send(new ListObjectsV2Command({ Bucket: bucket }))).Contents ?? []).map(
        (o) => o.Key ?? '',
      ),
    stop: async () => {
      client.destroy();
      await moto.stop();
    },
  };
}
