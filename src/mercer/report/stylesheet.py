"""The look of a page: light and dark, narrow and wide, on screen and on paper."""

STYLESHEET = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #24292f; --soft: #57606a; --line: #d9dde2; --card: #f5f7f9;
  --shade: #0003;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --ink: #d8dee6; --soft: #9aa5b1; --line: #333a44; --card: #1c2128;
    --shade: #000a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 64rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  overflow-wrap: anywhere;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 {
  font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-top: .9rem;
  border-top: 1px solid var(--line);
}
p { margin: .6rem 0; max-width: 46rem; }
.lead { color: var(--soft); }
.tiles {
  display: grid; gap: .75rem; margin: 1.2rem 0; padding: 0; list-style: none;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 10rem), 1fr));
}
.tiles li {
  background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .7rem .9rem;
}
.tiles strong { display: block; font-size: 1.5rem; line-height: 1.25; }
.tiles span { color: var(--soft); font-size: .875rem; }
.scroll {  /* a shadow at the side on which there is more to see */
  overflow-x: auto; margin: .8rem 0;
  background:
    linear-gradient(to right, var(--paper) 1.5rem, transparent) left / 2.5rem 100% local,
    linear-gradient(to left, var(--paper) 1.5rem, transparent) right / 2.5rem 100% local,
    linear-gradient(to right, var(--shade), transparent) left / .8rem 100% scroll,
    linear-gradient(to left, var(--shade), transparent) right / .8rem 100% scroll;
  background-repeat: no-repeat;
}
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
.caption { color: var(--soft); margin: 1.2rem 0 -.4rem; font-size: .875rem; }
th, td {
  padding: .34rem 1rem .34rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: normal; white-space: nowrap;
}
td.long { white-space: normal; min-width: 12rem; }
thead th { vertical-align: bottom; white-space: normal; }
th { font-weight: 600; }
td.number, th.number { text-align: right; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .3rem 1.2rem; }
dt { color: var(--soft); }
dd { margin: 0; }
.figures {
  display: grid; gap: 1.2rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
}
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; max-width: 31rem; height: auto; }
figcaption { color: var(--soft); font-size: .875rem; margin-top: .3rem; max-width: 31rem; }
pre {
  background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .8rem 1rem; white-space: pre-wrap; font-size: .875rem; line-height: 1.45;
}
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
footer { margin-top: 3rem; color: var(--soft); font-size: .875rem; }
@media (max-width: 30rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll { overflow: visible; background: none; }
  figure, tr, .tiles li { break-inside: avoid; }
  h2 { break-after: avoid; }
  thead { display: table-header-group; }
}
"""
