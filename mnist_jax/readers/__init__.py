"""Readers of data sets, one for each format in which they lie on disks: paths in, arrays out."""
