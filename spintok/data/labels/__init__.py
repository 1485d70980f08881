"""What is said in recordings, and when: transcripts, their spelling, and alignments of phones and words."""
