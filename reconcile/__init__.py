"""When upstream is asked about the tasks whose callbacks never came."""
