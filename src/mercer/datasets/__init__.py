"""Loaders: what ships inside scikit-learn, local folders and the user's own files.

Which one should I use?

============================== ==================================================================
`digits`                       1,797 small images of digits; nothing to download
`read_texts`                   your own texts, with or without labels: text, TSV, CSV or Parquet
`sst2`                         movie-review sentences, two classes, from the folder ``MERCER_DATA``
`find`                         the local folder of a named data set
============================== ==================================================================

Nothing here opens a network connection, and importing the room imports torch only.
"""

from .digits import digits as digits
from .find import find as find
from .read_texts import Texts as Texts
from .read_texts import read_texts as read_texts
from .split import Rows as Rows
from .split import Split as Split
from .sst2 import sst2 as sst2
