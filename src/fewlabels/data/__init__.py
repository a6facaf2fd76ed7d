"""Data: names, sources, splits and the images on the device.

Import from the modules; this file imports
nothing, so that a name can be checked (`names.parse`) without loading torch."""
