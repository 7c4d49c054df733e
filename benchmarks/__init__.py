"""Side-by-side measurements of fastgmm and its peers; start with README.md."""
