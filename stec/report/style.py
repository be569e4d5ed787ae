"""The dress of the page: one style sheet, light or dark as the reader's machine is set."""

STYLE = """
:root { color-scheme: light dark;
  --paper: #fcfbf9; --card: #ffffff; --ink: #23272d; --soft: #68707a; --rule: #e5e2dc; --accent: #2f6db5;
  --cell: #1d5496; --on: #ffffff;
  --warn: #9a5b00; --warn-paper: #fdf3e2; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15171b; --card: #1c1f24; --ink: #e4e5e3; --soft: #979ea8; --rule: #2f343b; --accent: #79aee6;
  --cell: #79aee6; --on: #10141a;
  --warn: #f0c27a; --warn-paper: #2c2415; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: anywhere;
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 44px 24px 56px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 8px; font-weight: 650; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 52px 0 4px; font-weight: 650; }
h3 { font-size: 14px; margin: 0; font-weight: 600; }
p { margin: 0 0 14px; max-width: 76ch; }
.lead { font-size: 17px; }
.soft, figcaption, .hint { color: var(--soft); }
.hint { font-size: 14px; }
code, pre, .mono { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.details { display: grid; grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); gap: 12px 24px;
  margin: 22px 0; }
.details dt { color: var(--soft); font-size: 12.5px; }
.details dd { margin: 0; font-variant-numeric: tabular-nums; }
.objective { color: var(--soft); border-left: 3px solid var(--rule); padding: 2px 0 2px 12px; max-width: none; }
.warning { background: var(--warn-paper); color: var(--warn); border-radius: 8px; padding: 10px 14px;
  max-width: none; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; table-layout: fixed; width: 100%; margin: 10px 0;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 8px 10px; border-bottom: 1px solid var(--rule); white-space: nowrap; }
thead th { font-size: 13px; font-weight: 600; color: var(--soft); vertical-align: bottom; white-space: normal; }
th:first-child { width: 19%; white-space: normal; text-align: left; padding-left: 0; font-weight: 500; }
tr.groups th { font-weight: 400; border-bottom: none; padding-bottom: 0; }
tr.groups + tr th { padding-top: 2px; }
tr.groups th + th::after { content: ""; display: block; border-bottom: 1px solid var(--rule); margin-top: 3px; }
.protocol { display: grid; grid-template-columns: max-content 1fr; gap: 3px 14px; margin: 14px 0; font-size: 13.5px;
  line-height: 1.45; color: var(--soft); max-width: 84ch; }
.protocol dt { font-weight: 600; }
.protocol dd { margin: 0; }
tbody tr.last th, td.best { font-weight: 680; }
tr.chance th, tr.chance td { color: var(--soft); font-weight: 400; border-bottom: none; }
.bar { display: block; position: relative; height: 4px; margin-top: 4px; border-radius: 2px;
  background: var(--rule); }
.bar i { display: block; height: 4px; border-radius: 2px; background: var(--soft); opacity: 0.55; }
tr.last .bar i { background: var(--accent); opacity: 1; }
.bar b { position: absolute; top: -2px; height: 8px; width: 2px; margin-left: -1px; background: var(--ink); }
figure { margin: 0; min-width: 0; }
figcaption { font-size: 13px; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(430px, 100%), 1fr)); gap: 18px;
  margin: 16px 0; }
.pairs figure { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px; }
.pairs img { display: block; max-width: 100%; max-height: 190px; margin-bottom: 10px; }
.pairs dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 12px; margin: 0; font-size: 13.5px; }
.pairs dt { color: var(--soft); }
.pairs dd { margin: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(280px, 100%), 1fr));
  gap: 26px 28px; margin: 18px 0; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font: 10.5px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--soft);
  font-variant-numeric: tabular-nums; }
svg text.axis { font-size: 11.5px; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .chance { stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 4 3; opacity: 0.75; }
svg .line circle { fill: var(--c); }
svg .line polyline { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
svg .cell { fill: var(--cell); }
svg g > .cell ~ text { fill: var(--ink); pointer-events: none; }
svg g > .cell ~ text.on { fill: var(--on); }
svg .right { fill: none; stroke: var(--ink); stroke-width: 1; opacity: 0.55; pointer-events: none; }
svg .frame { fill: var(--card); stroke: var(--rule); }
svg .spot circle { fill: var(--c); fill-opacity: 0.72; }
svg .spot.ring circle { fill: none; stroke: var(--c); stroke-width: 1.6; }
.map { display: grid; grid-template-columns: minmax(0, 480px) 1fr; gap: 24px; align-items: start; margin: 16px 0; }
.charts > figure { display: grid; grid-row: span 4; grid-template-rows: subgrid; gap: 4px; align-content: start; }
.confusion { grid-template-columns: repeat(auto-fill, minmax(min(205px, 100%), 1fr)); gap: 24px 20px; }
.confusion svg { max-width: 300px; }
.confusion svg text, .confusion svg text.axis { font-size: 12.5px; }
.charts .hint { margin: 0; line-height: 1.4; }
.legend { list-style: none; margin: 0; padding: 0; font-size: 13px; }
.legend li { display: flex; gap: 8px; align-items: baseline; padding: 1px 0; }
.legend.row { display: flex; align-content: start; flex-wrap: wrap; gap: 0 14px; }
.swatch { flex: none; width: 10px; height: 10px; border-radius: 5px; border: 2.5px solid var(--c);
  background: var(--c); }
.swatch.ring { background: none; }
.dash { flex: none; width: 16px; border-top: 1.5px dashed var(--ink); align-self: center; opacity: 0.75; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 10px 14px;
  margin: 4px 0 16px;
  white-space: pre-wrap; }
footer { margin-top: 56px; padding-top: 14px; border-top: 1px solid var(--rule); font-size: 13px;
  color: var(--soft); }
.c0 { --c: #3f7fc8; } .c1 { --c: #e08330; } .c2 { --c: #3fa05c; } .c3 { --c: #d4525e; } .c4 { --c: #8d6dc8; }
.c5 { --c: #a0764f; } .c6 { --c: #da7cb6; } .c7 { --c: #35a3a8; } .c8 { --c: #a8a02c; } .c9 { --c: #7f8b99; }
.none { --c: #8a8f96; }
@media (max-width: 720px) { .map { grid-template-columns: 1fr; } main { padding: 28px 16px; } }
@media print { .pairs figure, .charts figure { break-inside: avoid; } }
"""
