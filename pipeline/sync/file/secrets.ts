/** Finds what looks like a secret in a sync file: the file is copied to other hosts, kept in queues and shown in reports. */

/** What to do instead. */
export const WAY_OUT =
  'logins come from clouds.yaml, AWS profiles and the like; the URL of a webhook from env:NAME or file:/PATH';

/** Parts of names of keys that hold secrets, without dashes and capitals. `signKey` and `kmsKeyArn` name where a key is. */
const SECRET_KEY =
  /passw(or)?d|passphrase|secret|token$|^token|apikey|accesskey(?!arn)|accountkey|sharedkey|privatekey|storagekey|^key$|credentials?$|connectionstring|^sas$|authorization/;

const SECRET_VALUE =
  /:\/\/[^\s/@:]*:[^\s/@]+@|-----BEGIN [A-Z0-9 ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}\b|\bgAAAA[A-Za-z0-9_=-]{20,}|\b(AccountKey|SharedAccessSignature|SharedAccessKey)=|[?&](sig|token|password|api_?key|access_?token|temp_url_sig|x-amz-signature|x-goog-signature)=|\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{12,}|--?(password|token|secret|api-key)[= ]\S|\bgh[pousr]_[A-Za-z0-9]{20,}|\bxox[abp]-|hooks\.slack\.com\/services\//i;

const REFERENCE = /^(env:[A-Za-z_][A-Za-z0-9_]*|file:\/.+)$/;

/** Paths of values that look like secrets; the values themselves are told to nobody. */
export function secretPlaces(value: unknown): PropertyKey[][] {
  const found: PropertyKey[][] = [];
  walk(value, [], found);
  return found;
}

function walk(value: unknown, path: PropertyKey[], found: PropertyKey[][]): void {
  if (typeof value === 'string') {
    if (SECRET_VALUE.test(value)) found.push(path);
    return;
  }
  if (typeof value !== 'object' || value === null) return;
  if (Array.isArray(value)) {
    for (const [at, item] of value.entries()) walk(item, [...path, at], found);
    return;
  }
  for (const [key, inner] of Object.entries(value)) {
    const plain = key.toLowerCase().replace(/[-_. ]/g, '');
    const isFilled =
      (typeof inner === 'string' && inner !== '' && !REFERENCE.test(inner)) || typeof inner === 'number';
    // names of sources and targets are people's own
    const isOwnName = path.length === 1 && (path[0] === 'sources' || path[0] === 'targets');
    if (!isOwnName && isFilled && SECRET_KEY.test(plain)) found.push([...path, key]);
    else walk(inner, [...path, key], found);
  }
}
