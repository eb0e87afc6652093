-- For connections of our own: plans of prepared statements are made once.
set plan_cache_mode = force_generic_plan
