-- Undo of the second revision: tables in an order that needs no CASCADE.

DROP TABLE trend_reviews;
DROP TABLE email_preferences;
DROP TABLE notification_deliveries;
DROP TABLE notification_permissions;
DROP TABLE notification_policies;
