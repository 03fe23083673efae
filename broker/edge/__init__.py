"""The HTTP edge: applications come in here, speak OpenAI, and get answers, receipts or typed refusals."""
