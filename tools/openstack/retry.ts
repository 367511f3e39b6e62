/** Trying again: only temporary failures, with growing jittered pauses, and as late as the server asks. */
import pRetry from 'p-retry';
import { asPortError, PortError } from '../../core/errors.ts';
import { pause } from '../../core/pause.ts';
import { HttpError } from './http.ts';

/** How often and how long. */
export interface RetryOptions {
  signal?: AbortSignal | undefined;
  /** Attempts after the first. Default 5. */
  retries?: number;
  /** Called before each pause. */
  onRetry?: ((error: PortError, attempt: number) => void) | undefined;
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 20_000;
/** A server that asks for more patience than this gets its error shown instead. */
const LONGEST_RETRY_AFTER_MS = 120_000;

/** Runs `attempt` until it succeeds, fails for good, or the retries are used up. Throws the last error. */
export async function withRetries<T>(attempt: () => Promise<T>, options: RetryOptions = {}): Promise<T> {
  return pRetry(
    async () => {
      try {
        return await attempt();
      } catch (error) {
        throw asPortError(error);
      }
    },
    {
      retries: options.retries ?? 5,
      minTimeout: FIRST_PAUSE_MS,
      maxTimeout: LONGEST_PAUSE_MS,
      randomize: true,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      shouldRetry: ({ error }) =>
        error instanceof PortError &&
        error.temporary &&
        !(error instanceof HttpError && (error.retryAfterMs ?? 0) > LONGEST_RETRY_AFTER_MS),
      onFailedAttempt: async ({ error, attemptNumber, retriesLeft }) => {
        if (!(error instanceof PortError) || !error.temporary || retriesLeft === 0) return;
        options.onRetry?.(error, attemptNumber);
        if (!(error instanceof HttpError) || error.retryAfterMs === undefined) return;
        if (error.retryAfterMs > LONGEST_RETRY_AFTER_MS) return;
        await pause(error.retryAfterMs, options.signal);
      },
    },
  ).catch((error: unknown) => {
    if (options.signal?.aborted) throw new PortError('INTERRUPTED', 'interrupted', { cause: error });
    throw error;
  });
}
