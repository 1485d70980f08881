"""Where recordings are: files, parts of files, archives and tables, here or on object stores."""
