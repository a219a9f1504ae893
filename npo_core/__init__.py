"""Pictures and clips from base, aligned and aligned+NPO weights. Knows no database and no web page."""
