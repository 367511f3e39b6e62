/** What capturing needs of a stage context; `port-image capture` makes one without a conversion. */
import type { Request } from '../../core/request.ts';
import type { StageContext } from '../../core/stage.ts';

/** The part of the request that says what is captured and how. */
export type CaptureRequest = Pick<Request, 'source' | 'format' | 'capture' | 'disks' | 'moreSources'>;

/** What capturing needs. */
export type CaptureContext = Pick<StageContext, 'signal' | 'log' | 'progress' | 'warn'> & {
  readonly request: CaptureRequest;
  readonly paths: Pick<StageContext['paths'], 'dir' | 'capture' | 'tmp'>;
};
