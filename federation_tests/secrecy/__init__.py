"""Nobody but the application, its own broker and the attested node ever sees a prompt or an answer."""
