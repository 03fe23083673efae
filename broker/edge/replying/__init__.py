"""What a caller gets: a whole answer or a stream of events, its head, and where its time went."""
