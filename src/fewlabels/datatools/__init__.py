"""What `fewlabels data` does: look at data sets, check them, and turn one form into another.

Nothing here overwrites: results go to new files and folders, and only `rename` can work in place, with a log
that undoes it."""
