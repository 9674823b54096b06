"""Errors, atomic files, limits on input, logging, keyed draws, compiled loops and remote reads. Imports no other
package of hms_dist."""
