"""What was, again: captures of logs, their replay through the production fold, and states at past moments."""
