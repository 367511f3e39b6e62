/** What the pages of a sync add to the style of all reports. */
export const SYNC_STYLE = `
body{max-width:76rem}td.word{white-space:nowrap}
.grid{overflow-x:auto}.grid table{width:auto;min-width:40%}.grid td,.grid th{padding:.2rem .5rem;white-space:nowrap}
.grid td.cell{border:1px solid var(--line);min-width:6.5rem}.cell small{opacity:.75}
.cell.good{background:color-mix(in srgb,var(--good) 14%,transparent)}.cell.bad{background:color-mix(in srgb,var(--bad) 18%,transparent)}
.cell.unknown{background:color-mix(in srgb,var(--unknown) 16%,transparent)}
.fault{border-left:4px solid var(--bad);padding:.2rem .8rem;margin:.5rem 0}.fault p{margin:.1rem 0}
.tiles{display:flex;flex-wrap:wrap;gap:.8rem;margin:.8rem 0}.tiles div{background:var(--soft);border-radius:.4rem;padding:.5rem .9rem}
.tiles b{display:block;font-size:1.25rem}.tiles span{opacity:.8;font-size:.9rem}
.dot{display:inline-block;width:.75rem;height:.75rem;border-radius:50%;background:currentColor;margin-right:.25rem;vertical-align:-.05rem}
svg.spark{max-width:none;width:100%;height:120px}
`;
