import fc from 'fast-check';
import { expect, test } from 'vitest';
import { powershellWord } from '../../core/powershell-word.ts';

/** Reads a verbatim string as PowerShell's tokenizer does: a quote of any form ends it, two together are the second one. */
function readWord(text: string): { value: string; rest: string } {
  const isQuote = (c: string | undefined) => c !== undefined && "'\u2018\u2019\u201a\u201b".includes(c);
  expect(text[0]).toBe("'");
  let value = '';
  for (let at = 1; at < text.length; at++) {
    if (!isQuote(text[at])) value += text[at];
    else if (isQuote(text[at + 1])) value += text[++at];
    else return { value, rest: text.slice(at + 1) };
  }
  throw new Error('no end');
}

test.each(["a'b", '\u2019; Remove-Item C:\\ #', '$(calc)', '`n', '', "''", '\u201b\u2018'])(
  'a word stays one word: %j',
  (text) => {
    expect(readWord(powershellWord(text))).toEqual({ value: text, rest: '' });
  },
);

test('any text comes back', () => {
  const odd = fc.string({
    unit: fc.constantFrom("'", '\u2018', '\u2019', '\u201a', '\u201b', '"', '$', 'a', '\n'),
  });
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: 'binary' }), odd), (text) => {
      expect(readWord(powershellWord(text))).toEqual({ value: text, rest: '' });
    }),
  );
});
