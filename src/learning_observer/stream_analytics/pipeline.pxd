# Types of what is compiled; the code stands in pipeline.py.

from learning_observer.stream_analytics.batch cimport Batch
from learning_observer.stream_analytics.engine cimport Engine, Place
