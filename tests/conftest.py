"""One thread for the whole session: the models are tiny, and on a busy machine two threads wait for each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
