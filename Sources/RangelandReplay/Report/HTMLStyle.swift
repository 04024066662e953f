// SPDX-License-Identifier: Apache-2.0
//
// How a page looks.

enum HTMLStyle {
  static let text = """
    :root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--paper:#fff;--card:#f5f7f9;--line:#d0d7de;\
    --semaphore:#b4322a;--wholeRange:#8a5a00;--ranged:#0b6e4f;--perVMA:#2357b0;--shade:#1f3b5c;--warm:#b4322a}
    @media (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#9aa4af;--paper:#0f1216;--card:#191e24;--line:#343c46;\
    --semaphore:#ff8a7f;--wholeRange:#e8b44c;--ranged:#57d3a4;--perVMA:#85b3ff;--shade:#9cc4f2;--warm:#ff8a7f}}
    *{box-sizing:border-box}
    body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
    main{max-width:1120px;margin:0 auto;padding:24px 20px 48px}
    h1{font-size:1.6rem;margin:0 0 12px;line-height:1.2}
    h2{font-size:1.25rem;margin:32px 0 4px;padding-top:16px;border-top:1px solid var(--line);overflow-wrap:anywhere}
    h3{font-size:1.05rem;margin:28px 0 8px}
    h4{font-size:.95rem;margin:20px 0 6px}
    .soft,footer,figcaption{color:var(--soft)}
    figcaption,footer{font-size:.875rem}
    footer{margin-top:40px;border-top:1px solid var(--line);padding-top:12px}
    p{max-width:72ch;margin:8px 0}
    .verdict{font-size:1.15rem;border-left:4px solid var(--ink);padding:2px 0 2px 14px;margin:14px 0}
    .warning{border:1px dashed var(--soft);padding:8px 12px}
    nav ul{margin:0;padding-left:20px}
    a{color:inherit}
    .figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:10px;margin:10px 0 16px}
    .figures div{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:8px 12px}
    .figures b{display:block;font-size:1.15rem;font-variant-numeric:tabular-nums}
    .figures span{font-size:.8rem;color:var(--soft);line-height:1.3;display:block}
    .scroll{overflow-x:auto;margin:8px 0}
    table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
    th,td{padding:4px 12px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
    th{font-weight:600;color:var(--soft)}
    .text{text-align:left}
    .pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(460px,100%),1fr));gap:20px}
    figure{margin:8px 0;background:var(--card);border:1px solid var(--line);border-radius:6px;padding:10px}
    .wide{overflow-x:auto}
    .wide svg{min-width:640px}
    svg{display:block;width:100%;height:auto}
    .pictures figure{overflow-x:auto;min-width:0}
    .pictures svg{min-width:440px;max-width:640px}
    pre{overflow-x:auto;font-size:.8rem;background:var(--card);border:1px solid var(--line);border-radius:6px;padding:10px}
    details{margin:16px 0}
    summary{cursor:pointer}
    .chains{padding-left:28px;font-size:.9rem}
    .chains details{margin:6px 0}
    .chains pre{margin:6px 0}
    .chains code{overflow-wrap:anywhere}
    svg text{fill:var(--ink);font:12px system-ui,sans-serif;paint-order:stroke;stroke:var(--card);stroke-width:3px}
    svg .soft{fill:var(--soft)}
    svg .mono{font:10.5px ui-monospace,monospace;fill:var(--soft)}
    .axis{stroke:var(--soft);stroke-width:1}
    .grid{stroke:var(--line);stroke-width:1}
    .gap{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 3}
    .frame{fill:none;stroke:var(--line)}
    .recorded{stroke:var(--soft);stroke-width:1;stroke-dasharray:1 3}
    .curve{fill:none;stroke-width:2}
    .curve.semaphore{stroke:var(--semaphore)}
    .curve.wholeRange{stroke:var(--wholeRange);stroke-dasharray:2 3}
    .curve.ranged{stroke:var(--ranged);stroke-width:2.6}
    .curve.perVMA{stroke:var(--perVMA);stroke-dasharray:9 4}
    .mark{stroke:var(--card);stroke-width:1}
    .mark.semaphore,.bar.semaphore{fill:var(--semaphore)}
    .mark.wholeRange,.bar.wholeRange{fill:var(--wholeRange)}
    .mark.ranged,.bar.ranged{fill:var(--ranged)}
    .mark.perVMA,.bar.perVMA{fill:var(--perVMA)}
    .bar.recordedBar{fill:var(--ink)}
    .faults0{fill:var(--shade);opacity:.22}
    .faults1{fill:var(--shade);opacity:.5}
    .faults2{fill:var(--shade);opacity:.9}
    .changes{fill:var(--ink);stroke:var(--card);stroke-width:.4}
    .halo{fill:none;stroke:var(--card);stroke-width:3.6}
    .ring{fill:none;stroke:var(--warm);stroke-width:1.4}
    .cross{fill:none;stroke:var(--warm);stroke-width:1.4}
    @media print{:root{--paper:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb}}
    """
}
