"""Adapters: the fitted bridge between what users hold (tables, arrays, series) and standardised samples."""

from genad.data.adapters.base import Adapter, Array, Loaded
from genad.data.adapters.dense import DenseAdapter
from genad.data.adapters.series import SeriesAdapter
from genad.data.adapters.table import TableAdapter

__all__ = ["Adapter", "Array", "DenseAdapter", "Loaded", "SeriesAdapter", "TableAdapter"]
