/** Style sheet of the report: readable on screen and paper, light and dark, no outside font or script. */
export const STYLE = `
:root{color-scheme:light dark;--fg:#1c2330;--bg:#fbfbf9;--soft:#eceee9;--line:#d5d9d1;--good:#1b7f4d;--bad:#b3261e;--unknown:#8a6d00;--before:#9aa5b1;--after:#1b7f4d;--data:#3b6fb6;--time:#7a5ea8}
@media (prefers-color-scheme:dark){:root{--fg:#e4e7e3;--bg:#15191e;--soft:#20262d;--line:#343c45;--good:#5cc48c;--bad:#ff8a80;--unknown:#e0c060;--before:#6b7785;--after:#5cc48c;--data:#7aa7e0;--time:#b197dd}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:62rem;margin:0 auto;padding:1.5rem}
h1{margin:0;font-size:2rem}h2{margin:2.2rem 0 .6rem;border-bottom:1px solid var(--line);font-size:1.25rem}h3{margin:1.2rem 0 .4rem;font-size:1.05rem}
.lead{margin:.2rem 0 .8rem;font-size:1.05rem;overflow-wrap:anywhere}
.verdict b,h3 b{display:inline-block;border:1px solid currentColor;border-radius:1rem;padding:0 .7rem;margin:0 .3rem .3rem 0;font-size:.9rem;font-weight:600}
.good{color:var(--good)}.bad{color:var(--bad)}.unknown{color:var(--unknown)}
code,pre{font:13px/1.45 ui-monospace,monospace}code{overflow-wrap:anywhere}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--soft);padding:.6rem;border-radius:.3rem;margin:.2rem 0;max-height:24rem;overflow:auto}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;border-bottom:1px solid var(--line);overflow-wrap:anywhere}th{white-space:nowrap}
.lines{white-space:pre-line}
svg{width:100%;max-width:760px;display:block;font:13px system-ui,sans-serif}svg text{fill:var(--fg)}svg .label{text-anchor:end}
.before{fill:var(--before)}.after{fill:var(--after)}.data{fill:var(--data)}.time{fill:var(--time)}
.change{margin:.25rem 0;border-left:3px solid var(--line);padding-left:.7rem}.change span{opacity:.8}.change code{color:var(--data)}
div.before,div.after{margin:.3rem 0}figure{margin:1rem 0}img{max-width:min(100%,32rem);border:1px solid var(--line);border-radius:.3rem}
footer{margin:3rem 0 1rem;opacity:.7;font-size:.85rem;overflow-wrap:anywhere}
`;
