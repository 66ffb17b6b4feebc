"""Write what was derived as one page of HTML.

document builds the page: its verdict, and how far the models agree. cards says where they part and which parameters
have no partner, table shows the lines. trees puts both module trees side by side, and rates the differences of uses:
tree arranges these by module, and names the rows to which cards link.
"""

from .document import page

__all__ = ["page"]
