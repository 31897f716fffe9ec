"""Texts to search in: notes of a bicycle workshop."""

NOTES = [
    "Squealing brakes: clean the rotor with alcohol and sand the glazed pads lightly.",
    "A chain that skips under load is worn; measure it with a gauge and replace the cassette as well.",
    "Tubeless tyres need fresh sealant every four months, or small punctures stay open.",
    "The headset is loose when the front end knocks under hard braking.",
    "Indexing the derailleur: turn the barrel adjuster until every shift is crisp.",
    "Carbon seatposts want friction paste and a torque wrench, never grease.",
    "Winter storage: keep the battery of an electric bike half full and indoors.",
    "Wheel truing: tighten the spoke opposite to the wobble by a quarter of a turn.",
    "The workshop is closed on Mondays and opens at ten on other days.",
    "Invoices are paid within fourteen days; part XR-7741 is invoiced separately.",
]
QUESTION, ANSWER = "where should an ebike spend the cold months", NOTES[6]
# They have no word in common; "months" is in another note.
PART, PART_ANSWER = "XR-7741", NOTES[9]  # a word that no model knows
