/** Addresses that replace a cloud's own, for tests and private gates. */
import * as z from 'zod';
import { PortError } from '../core/errors.ts';

/**
 * An address without its last slash. Throws USAGE for one that is neither https nor on this machine: nothing else may see a
 * token or a signature.
 */
export function checkEndpoint(endpoint: string): string {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  const isLoopback = url !== undefined && /^(127(\.\d{1,3}){3}|\[::1\]|localhost)$/.test(url.hostname);
  const isFine = url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopback);
  if (url === undefined || !isFine || url.username !== '' || url.search !== '') {
    throw new PortError('USAGE', 'an endpoint is an https address, or an http address of this machine');
  }
  return endpoint.replace(/\/+$/, '');
}

/** An option that is such an address. */
export const Endpoint = z
  .string()
  .refine((text) => {
    try {
      checkEndpoint(text);
      return true;
    } catch {
      return false;
    }
  }, 'an https address, or an http address of this machine')
  .transform(checkEndpoint);
