# ruff: noqa: E501  (style sheet)
"""How a page looks: light or dark as the reader has it, readable on a phone and on paper."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#f6f7f9;--ink:#1c2126;--faint:#5d6670;--line:#d9dee3;--grid:#e4e8ec;
--a:#2563c9;--b:#d9730d;--c:#1a8a5f;--d:#9a3fb5;--e:#7a828a;--bad:#b3261e;--warn:#fff4e0;--warnline:#e0a030}
@media(prefers-color-scheme:dark){:root{--paper:#14171a;--card:#1d2125;--ink:#e8ebee;--faint:#9aa4ae;--line:#343b42;
--grid:#2a3036;--a:#6ea8ff;--b:#ffab5e;--c:#55c99a;--d:#d08cec;--e:#98a1aa;--bad:#ff8a80;--warn:#33290f;--warnline:#a87a20}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:66rem;margin:0 auto;padding:1.25rem 1rem 3rem;overflow-wrap:anywhere}
h1{font-size:1.1rem;font-weight:600;color:var(--faint);margin:.25rem 0 .75rem}
h2{font-size:1.25rem;margin:2.5rem 0 .6rem}
h3{font-size:1rem;margin:1.5rem 0 .4rem}
p{margin:.4rem 0;max-width:46rem}
.verdict{font-size:1.35rem;line-height:1.4;font-weight:600;margin:0 0 1rem}
.faint,figcaption small{color:var(--faint)}
.faint{font-size:.9rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.6rem;margin:1rem 0}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}
.tiles b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums;line-height:1.25}
.tiles span{font-size:.85rem;color:var(--faint);line-height:1.3;display:block}
.finding{background:var(--warn);border-left:4px solid var(--warnline);border-radius:.3rem;padding:.5rem .8rem;margin:.5rem 0}
.finding p{margin:.15rem 0}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,21rem),1fr));gap:1rem 1.5rem}
figure{margin:0}
.chart figcaption{font-weight:600;margin-bottom:.15rem}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--faint);font-size:10.5px;font-family:inherit}
svg .grid{stroke:var(--grid)}
svg polyline{fill:none;stroke-width:1.8;stroke-linejoin:round}
.keys{display:flex;flex-wrap:wrap;gap:.15rem 1rem;font-size:.85rem;color:var(--faint);padding:0;margin:.25rem 0 0;list-style:none}
.keys i{display:inline-block;width:1.3em;border-top:.22em solid;vertical-align:.28em;margin-right:.4em}
.wide{overflow-x:auto;margin:.5rem 0}
table{border-collapse:collapse;width:max-content;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--line);overflow-wrap:normal;white-space:nowrap}
th{color:var(--faint);font-weight:600;vertical-align:bottom}
.l{text-align:left}
.l bdi{display:inline-block;max-width:22rem;white-space:normal;overflow-wrap:anywhere}
.matrix table{border-spacing:2px;border-collapse:separate}
.matrix th,.matrix td{border:0;padding:.2rem .4rem;min-width:2rem;text-align:center}
.matrix td{border-radius:3px;background:var(--card)}
.matrix .l{text-align:left;background:none}
.matrix .l bdi{max-width:11rem}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(7.5rem,1fr));gap:1rem .8rem}
.pictures img{display:block;width:100%;max-width:7.5rem;height:7.5rem;object-fit:contain;object-position:left bottom}
.pictures bdi{display:inline-block;vertical-align:top;max-width:100%;max-height:4.05em;overflow:hidden}
.pixels{image-rendering:pixelated}
figcaption{font-size:.85rem;line-height:1.35}
figcaption b{font-weight:600}
figcaption small{display:-webkit-box;-webkit-line-clamp:3;-webkit-box-orient:vertical;overflow:hidden}
.sheet{max-width:100%;height:auto;border:1px solid var(--line);border-radius:.3rem;background:#fff}
details{margin:.6rem 0}
summary{cursor:pointer;color:var(--a)}
code{overflow-wrap:anywhere}
.o{white-space:nowrap}
pre,code{font-family:ui-monospace,SFMono-Regular,Menlo,monospace;font-size:.85rem}
pre{background:var(--card);border:1px solid var(--line);border-radius:.4rem;padding:.6rem .8rem;white-space:pre-wrap}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;margin:.5rem 0;font-size:.95rem}
dt{color:var(--faint)}
dd{margin:0}
footer{margin-top:3rem;padding-top:.8rem;border-top:1px solid var(--line);color:var(--faint);font-size:.85rem}
@media(max-width:30rem){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}.verdict{font-size:1.15rem}
.tiles b{font-size:1.15rem}.l bdi{max-width:12rem}.matrix .l bdi{max-width:7rem}
.pictures{grid-template-columns:repeat(auto-fill,minmax(6rem,1fr))}.pictures img{height:6rem;max-width:6rem}}
@media print{:root{--paper:#fff;--card:#f6f7f9;--ink:#000;--faint:#444;--line:#ccc;--grid:#ddd;--a:#2563c9;--b:#d9730d;
--c:#1a8a5f;--d:#9a3fb5;--e:#7a828a;--bad:#b3261e;--warn:#fff4e0;--warnline:#e0a030;color-scheme:light}
body{font-size:11pt}main{max-width:none;padding:0}figure,.finding,tr,.tiles div{break-inside:avoid}h2{break-after:avoid}
.wide{overflow:visible}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}details:not([open]){display:none}}
"""
