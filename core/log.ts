/** Structured log: a fixed text and fields, so it can be searched. Nothing below `cli/` prints. */

/** Fields of a log line. Secrets never belong here. */
export type LogFields = Record<string, string | number | boolean | undefined | null | readonly string[]>;

/** Level of a log line. */
export type LogLevel = 'debug' | 'info' | 'warn';

/** Where stages and tools write what happened. */
export interface Log {
  debug(text: string, fields?: LogFields): void;
  info(text: string, fields?: LogFields): void;
  warn(text: string, fields?: LogFields): void;
}

/** Builds a Log over one function that receives every line. */
export function makeLog(write: (level: LogLevel, text: string, fields: LogFields) => void): Log {
  return {
    debug: (text, fields = {}) => write('debug', text, fields),
    info: (text, fields = {}) => write('info', text, fields),
    warn: (text, fields = {}) => write('warn', text, fields),
  };
}

/** A log that goes nowhere. */
export const silentLog: Log = makeLog(() => {});
