"""One self-contained HTML page with figures for what a command found.

Which one should I use?

======================= ==========================================================================
`Page`                  paragraphs, tables, figures and code in one file that opens from disk
`draw_svg`              one figure of Mercer's style as SVG text, to put somewhere else
`PALETTE`               the colours, which colour-blind readers tell apart (Okabe and Ito)
======================= ==========================================================================

Figures need matplotlib (the extra ``plot``); without it a page has everything else and says so.
"""

from .figure import PALETTE as PALETTE
from .figure import draw_svg as draw_svg
from .page import Page as Page
