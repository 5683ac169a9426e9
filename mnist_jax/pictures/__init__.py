"""Reads digits' images from people's pictures: files, paper, printed lines, marks, digits."""
