import fc from 'fast-check';
import { expect, test } from 'vitest';
import { setSettings } from '../../tools/plain-settings.ts';

test('a setting is changed where it stands, added where it is missing, comments stay', () => {
  const text = '# Agent\nA=1\nB = old\n#C=no\n';
  expect(
    setSettings(text, [
      { key: 'B', value: 'new' },
      { key: 'C', value: 'yes' },
    ]),
  ).toBe('# Agent\nA=1\nB=new\n#C=no\nC=yes\n');
});

test('sections: the right one, the next one untouched, a new one at the end', () => {
  const text = '[One]\na = 1\n\n[Two]\na = 1\n';
  const set = (section: string, key: string) => setSettings(text, [{ section, key, value: 'x' }]);
  expect(set('One', 'a')).toBe('[One]\na=x\n\n[Two]\na = 1\n');
  expect(set('One', 'b')).toBe('[One]\na = 1\nb=x\n\n[Two]\na = 1\n');
  expect(set('Three', 'a')).toBe(`${text}\n[Three]\na=x\n`);
  expect(setSettings('', [{ section: 'S', key: 'a', value: 'x' }])).toBe('[S]\na=x\n');
});

test('twice is once, a key that stands twice stands once', () => {
  expect(setSettings('a=1\na=2\n', [{ key: 'a', value: '3' }])).toBe('a=3\n');
  const line = fc.constantFrom('a=1', ' a = 2', '#a=3', '[S]', '[T]', '', 'b=1', 'word');
  const setting = fc.record({ key: fc.constantFrom('a', 'b'), value: fc.constantFrom('1', '2') });
  fc.assert(
    fc.property(fc.array(line), fc.option(fc.constantFrom('S', 'T')), setting, (lines, section, one) => {
      const settings = [{ ...one, ...(section === null ? {} : { section }) }];
      const text = lines.length === 0 ? '' : `${lines.join('\n')}\n`;
      const once = setSettings(text, settings);
      expect(setSettings(once, settings)).toBe(once);
      for (const comment of lines.filter((l) => l.startsWith('#') || l === 'word')) {
        expect(once).toContain(comment);
      }
    }),
  );
});
