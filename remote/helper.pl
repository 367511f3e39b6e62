die "not yet"
