"""Loaders: what ships inside scikit-learn, local folders and the user's own files.

Which one should I use?

============================== ==================================================================
`digits`                       1,797 small images of digits; nothing to download
`read_texts`                   your own texts, with or without labels: text, TSV, CSV or Parquet
`read_table`                   a table of yours, CSV or Parquet, as a `DataTable`
`TableFile`                    the same some rows at a time, for tables of any length
`TableEncoder`                 numbers of it: dates, categories, missing cells, on one scale
`ArrayRows`                    rows of arrays in blocks, memory-mapped ones too
`ParquetRows`                  rows of Parquet files, row group by row group
`BatchRows`                    rows of anything that can be iterated over again
`RowSource`                    what these three are: rows that need not fit into memory
`RowBlock`                     some of their rows, with targets and weights
`sst2`                         movie-review sentences, two classes, from the folder ``MERCER_DATA``
`find`                         the local folder of a named data set
============================== ==================================================================

Nothing here opens a network connection, and importing the room imports torch only.
"""

from .batch_rows import BatchRows as BatchRows
from .column_encoding import ColumnEncoding as ColumnEncoding
from .data_table import DataTable as DataTable
from .digits import digits as digits
from .find import find as find
from .parquet_source import ParquetRows as ParquetRows
from .read_table import read_table as read_table
from .read_texts import Texts as Texts
from .read_texts import read_texts as read_texts
from .row_source import ArrayRows as ArrayRows
from .row_source import RowBlock as RowBlock
from .row_source import RowSource as RowSource
from .split import Rows as Rows
from .split import Split as Split
from .sst2 import sst2 as sst2
from .table_encoder import TableEncoder as TableEncoder
from .table_file import TableFile as TableFile
