"""Small files that the pages name in their examples."""

SAMPLES = {
    "trips.conll": """
Ann B-who
flew O
to O
San B-city
Jose I-city

Bob B-who
stays O
in O
Bonn B-city

Eve B-who
left O
Rome B-city
today O

we O
never O
saw O
Quito B-city

Ann B-who
and O
Bob B-who
met O

to O
New B-city
York I-city
and O
Lima B-city

Eve B-who
called O
from O
Oslo B-city

nobody O
came O
""".strip().split("\n"),
    "tags.csv": [
        "text,tags",
        "the app crashes when I pay by card,app|payment",
        '"refund not here, tracking says returned",refund|parcel',
        "card declined twice,payment",
        "where is my parcel,parcel",
        "app shows a white page,app",
        "refund of a lost parcel,refund|parcel",
        '"double payment, want refund",payment|refund',
        "parcel never came,parcel",
    ],
    "holes.csv": [
        "text,label",
        "card charged twice,billing",
        "parcel is late,",
        "cannot log in,account",
        "refund please,billing",
        ",account",
    ],
    "dups.csv": [
        "text,label",
        '"My card was charged twice, please help",billing',
        "where is my parcel?,delivery",
        "i cannot log in to the app today,account",
        "my card was charged twice please help!,billing",
        "Where is my parcel?,account",
        "...,account",
    ],
    "dups-test.csv": ["text,label", "where is my parcel?,delivery", "app rejects my password,account"],
}
