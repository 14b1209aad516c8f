-- The access token with which the subscription was made, encrypted with a key that follows from the VAPID key
-- (fanline/vapid.py): what is pushed names it. Null in subscriptions of before.
ALTER TABLE push_subscriptions ADD COLUMN sealed_token text;
