"""Early activity recognition: what happens in a video, from the first part of it."""
