/** Ctrl-C and SIGTERM: children stop, the lock is released, the job stays resumable. */

/** A signal that aborts when the process is asked to end, and which one it was. */
export interface Interruption {
  signal: AbortSignal;
  name(): NodeJS.Signals | undefined;
}

/** Installs the handlers. A second signal ends the process at once. */
export function onInterrupt(): Interruption {
  const controller = new AbortController();
  let name: NodeJS.Signals | undefined;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (name !== undefined) process.exit(signal === 'SIGTERM' ? 143 : 130);
      name = signal;
      process.stderr.write('\nstopping; what is done is kept …\n');
      controller.abort();
    });
  }
  return { signal: controller.signal, name: () => name };
}
