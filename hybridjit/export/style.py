"""How a report's page looks."""

STYLE = """
:root {
  color-scheme: light dark;
  --bg: #f6f7f9; --card: #ffffff; --ink: #1b2230; --soft: #626c7f; --line: #e3e7ee; --code: #f1f3f7;
  --good: #14784a; --good-bg: #e0f4e9; --bad: #b3261e; --bad-bg: #fce8e6; --warn: #8a5300; --warn-bg: #fff1d6;
  --traced: #9aa5b8; --scripted: #7a4fd0; --branching: #0f8a8a; --guarded: #d18100; --hit: #fff6dc;
  --scripted-bg: #efe8fd; --branching-bg: #dcf3f2; --guarded-bg: #fff1d6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --bg: #12151b; --card: #1a1f28; --ink: #e6e9ef; --soft: #98a2b5; --line: #2b323f; --code: #12161d;
    --good: #5fd39a; --good-bg: #12372a; --bad: #ff938a; --bad-bg: #44201e; --warn: #f3bd63; --warn-bg: #3d2e12;
    --traced: #667186; --scripted: #b598ff; --branching: #4fd0cd; --guarded: #f0b24b; --hit: #33301f;
    --scripted-bg: #2e2550; --branching-bg: #113a3b; --guarded-bg: #3d2e12;
  }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--bg); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; -webkit-font-smoothing: antialiased }
main { max-width: 1040px; margin: 0 auto; padding: 40px 24px 80px }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .87em }
code { overflow-wrap: anywhere }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.02em; margin: 0; display: flex; flex-wrap: wrap;
  gap: 12px;
  align-items: center }
h2 { font-size: 17px; letter-spacing: -.01em; margin: 0 0 4px }
p { margin: 0 }
ul { margin: 0; padding: 0; list-style: none }
.eyebrow { color: var(--soft); font-size: 13px; margin-bottom: 4px; overflow-wrap: anywhere }
.muted, .hint { color: var(--soft) }
.hint { font-size: 13.5px; margin-bottom: 12px }
.verdict { font-size: 14px; font-weight: 600; letter-spacing: 0; padding: 4px 12px; border-radius: 99px }
.good { color: var(--good); background: var(--good-bg) }
.bad { color: var(--bad); background: var(--bad-bg) }
header { margin-bottom: 24px }
header > .muted { font-size: 14px; margin-top: 4px } .scope { margin-top: 10px; max-width: 46rem }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 20px }
.tile { flex: 1 1 120px; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 12px 16px }
.tile b { display: block; font-size: 22px; line-height: 1.25; font-weight: 600; letter-spacing: -.02em }
.tile span { color: var(--soft); font-size: 13px }
.tile.bad { background: var(--card) } .tile.bad b { color: var(--bad) } .tile.warn b { color: var(--warn) }
section { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 20px 22px;
  margin-top: 16px }
section > h2 + :not(.hint) { margin-top: 12px }
.refusal { border-color: var(--bad) } .refusal h2 { color: var(--bad) }
.refusal pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 12px 0 0; background: var(--code);
  border-radius: 8px; padding: 12px 14px }
.refusal li { padding: 6px 0; border-top: 1px solid var(--line); overflow-wrap: anywhere }
  .refusal li b { display: block }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 14px }
th, td { text-align: left; padding: 8px 14px 8px 0; border-top: 1px solid var(--line); vertical-align: top;
  font-weight: 400 }
tr:first-child > th, .branches tr:first-child > td { border-top: 0 }
tr:first-child > th { color: var(--soft); font-size: 13px }
.matrix th span { display: block; font-size: 13px }
.matrix .entry th { padding-top: 16px; font-weight: 600 }
.matrix td { white-space: nowrap; font-size: 13.5px }
.mark { display: inline-block; font-weight: 600; font-size: 13px; padding: 1px 9px; border-radius: 99px }
.none { color: var(--soft) }
.unverified li { padding: 7px 0; border-top: 1px solid var(--line) } .unverified li:first-child { border-top: 0 }
.unverified b { color: var(--warn); margin-left: 6px }
.line { display: block; color: var(--soft); margin-top: 1px; white-space: pre-wrap }
.legend { display: flex; flex-wrap: wrap; gap: 6px 18px; font-size: 13px; color: var(--soft); margin-bottom: 12px }
.key { display: inline-flex; align-items: center }
.dot { display: inline-block; width: 9px; height: 9px; border-radius: 3px; margin-right: 8px;
  background: var(--traced);
  flex: none }
.dot.scripted { background: var(--scripted) } .dot.branching { background: var(--branching) }
.dot.guarded { background: var(--guarded) } .dot.frozen { background: var(--bad) }
.dot.unsure { background: transparent; border: 2px solid var(--warn) }
.tree ul ul { margin-left: 4px; padding-left: 18px; border-left: 1px solid var(--line) }
.row { display: flex; flex-wrap: wrap; align-items: center; gap: 2px 0; padding: 3px 0; }
.tree code { font-weight: 600; margin-right: 8px } .tree .kind { color: var(--soft); font-size: 13.5px }
.tree .muted { margin-left: 6px; font-size: 13.5px }
summary { cursor: pointer; list-style: none } summary::-webkit-details-marker { display: none }
.tree summary::after { content: "▾"; color: var(--soft); font-size: 11px; margin-left: 8px }
.tree details:not([open]) > summary::after { content: "▸" }
.chip, .tag { font-size: 12px; font-weight: 600; border-radius: 6px; padding: 0 7px; line-height: 20px;
  white-space: nowrap }
.chip { margin-left: 8px } .tag { background: var(--code); color: var(--soft) }
.chip.scripted { color: var(--scripted); background: var(--scripted-bg) }
.chip.branching { color: var(--branching); background: var(--branching-bg) }
.chip.guarded, .tag.guarded { color: var(--guarded); background: var(--guarded-bg) }
.chip.frozen { color: var(--bad); background: var(--bad-bg) }
.chip.unsure { color: var(--warn); box-shadow: inset 0 0 0 1px var(--warn) }
.tag.warning { color: var(--warn); background: var(--warn-bg) }
.card { border: 1px solid var(--line); border-left: 3px solid var(--traced); border-radius: 8px; padding: 12px 14px;
  margin-top: 12px }
.card.warning { border-left-color: var(--guarded) }
.card p { overflow-wrap: anywhere }
.top { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; margin-bottom: 6px }
.where { color: var(--soft) } .top .where { margin-left: auto }
.source { margin: 10px 0 0; background: var(--code); border-radius: 8px; padding: 8px 0; overflow-x: auto;
  line-height: 1.6 }
.source span { display: block; white-space: pre; padding: 0 14px; min-width: max-content }
.source i { display: inline-block; width: 3.2em; color: var(--soft); font-style: normal; user-select: none;
  opacity: .7 }
.source .hit { background: var(--hit); box-shadow: inset 3px 0 0 var(--guarded) }
.fix { margin-top: 10px; display: flex; gap: 10px; align-items: baseline; font-size: 14px }
.fix span { color: var(--good); font-size: 12px; font-weight: 600; white-space: nowrap }
  .fix code { white-space: pre-wrap }
section > details > summary { color: var(--soft); margin-top: 14px; font-weight: 600; font-size: 14px }
section > details > summary::before { content: "▸ " } section > details[open] > summary::before { content: "▾ " }
.branches td { padding-top: 9px; padding-bottom: 9px } .branches td:first-child { white-space: nowrap }
.branches .sides { text-align: right; padding-right: 0; white-space: nowrap }
.side { display: inline-flex; gap: 7px; font-size: 13px; border-radius: 6px; padding: 1px 9px; margin: 0 0 4px 6px;
  white-space: nowrap; background: var(--code); color: var(--soft) }
.side b { font-weight: 600 }
.side.taken { background: var(--good-bg); color: var(--good) }
.side.missing { background: var(--warn-bg); color: var(--warn) }
@media (max-width: 640px) { main { padding: 24px 14px 60px } section { padding: 16px } .top .where { margin-left: 0;
  width: 100% } .branches td { display: block; border: 0; padding: 2px 0 } .branches .sides { white-space: normal }
  .branches tr { display: block;
  border-top: 1px solid var(--line); padding: 8px 0 } .sides { text-align: left } .side { margin: 0 6px 4px 0 } }
"""
