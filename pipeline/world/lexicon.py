"""The world's names and nouns.

`ANY` are names that may be a person, a place or an organization: only the sentence tells which. The pairs of
`ADJECTIVES` and `NOUNS` may be an organization, an event or a plain thing.
"""

from pipeline.world.sampling import split_names


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


def barred(text: str) -> list[str]:
    """What stands between the bars of a text."""
    return text.split("|")


REAL = words("""Washington Houston Lincoln Reading Jackson Chelsea Florence Victoria Sydney Charlotte Austin Orlando Madison
Dallas Phoenix Ford Chase Morgan Wells Mercedes Disney Hershey Dell Boeing Philips Bath Cork Mobile Buffalo Target Apple
Shell Oracle Amazon Orange Sprint Rose Hope Grace Grant Bristol Lancaster Stafford Windsor Kent Essex Sutton Preston
Carlisle Chester Derby Hamilton Wellington Nelson Darwin Adelaide Perth Regina Vernon Marion Cleveland Jefferson Monroe
Columbus Raleigh Dayton Gary Lima Medina Vienna Verona Siena Milan Israel Jordan Chad Georgia Carolina Dakota Montana
Savannah Brooklyn Devon Clyde Avon Trent Shannon Tyne Diamond Crown Sterling Summit Frontier Liberty Mercury Apollo
Atlas Titan Orion Vega Nova Phoebe Juno Hermes Pearl Ruby Opal Jasper Onyx Amber Forest Heath Cliff Brook Dale Glen
Marsh Ridge Field Banks Waters Rivers Stone Woods Hill Park Hall Church Castle Temple Abbey Bridge March August June
April May Summer Winter Autumn Friday Sunday Will Mark Bill Frank Art Pat Drew Rob Sue Dean Earl Duke King Prince Bishop
Pope Baker Mason Fisher Cook Hunter Carter Taylor Turner Miller Potter Gardener Shepherd""")

STARTS = words(
    "Vel Tor Bra Kel Mor Dun Har Sel Quin Lor Fen Wal Tas Ost Gri Pol Zan Nor Cal Rud Yar Hel"
)
ENDS = words(
    "mar inga don wick stad ova ley ren tia holm nor dale uri eska bury lin ard ello mont vane"
)
INVENTED = [start + end for start in STARTS for end in ENDS]
CALENDAR = frozenset(words("March April May June August Summer Winter Autumn Friday Sunday"))
ANY = split_names(REAL + INVENTED)
# "in May" is a time: what the calendar names is a person or a firm, but no place.
ANY_PLACE = split_names([name for name in REAL + INVENTED if name not in CALENDAR])

GIVEN = split_names(
    words("""Anna Peter Maria John Laura David Nadia Omar Wei Ingrid Carlos Fatima Tomas Priya Hiro Leila Samuel Nora Ivan
Elena Kofi Amara Lars Sofia Marta Diego Yusuf Hannah Olga Pablo Irene Simon Ruth Walter Clara Felix Greta Hugo
Vera Paris Florence Sydney Austin Charlotte Victoria Orlando Chelsea Madison Dallas Brooklyn Georgia Jordan Chad
Rose Mark Will May Hope Grace Faith Joy Bill Frank Art Grant April June August Summer Dawn Jack Pat Drew Rob Sue
Dean Earl Hunter Ruby Pearl Amber Jasper Cliff Glen Dale Heath Ray Gene Miles Rich Guy Ivy Lily Daisy Iris
Violet Olive Robin Martin Jay""")
)
SURNAMES = split_names(
    words("""Hale Novak Okafor Silva Kim Larsen Haddad Moreau Petrov Tanaka Ortiz Mensah Costa Weber Kowalski Rossi Nguyen
Singh Farah Lindgren Castillo Dubois Fischer Yilmaz Ivanova Berg Santos Walsh Murphy Cohen Adler Brandt Conti
Duarte Engel Ferrari Gupta Hansen Ito Jensen Keller Lopez Marin Nagy Olsen Park Quist Ramos Sato Toth Ueda
Vargas Wolf Xu Young Zhou Brown White Green Black Gray Long Short Rich Strong Sharp Swift Small Bright Savage
Noble Wise Moody Stern Frost Snow Rain Winters Summers Day Knight Page Price Bond Cash Sage Reed Thorn Fox Lamb
Crane Drake Finch Swan Wren""")
)
TOWNS = split_names(
    words("""Lisbon Nairobi Oslo Hanoi Warsaw Dublin Cairo Quito Riga Tunis Prague Bergen Malaga Kyoto Accra Izmir Ghent
Turin Porto Leipzig Cork Bath Nice Split Bergamo Busan Osaka Odense Tampere Gdansk Lyon Basel Bern Graz Linz
Brno Pecs Varna Zagreb Skopje Tirana Sofia Athens Patras Corinth Sparta Troy Rome Genoa Parma Modena Essen Worms
Speyer Hull Deal Rugby Sandwich Battle Wells Ware Rye""")
)
FIRMS = split_names(
    words("""Apple Target Shell Gap Oracle Orange Visa Sprint Amazon Subway Tide Dove Puma Caterpillar Jaguar Nokia Siemens
Toyota Nestle Bosch Bayer Roche Renault Fiat Volvo Saab Acer Canon Ricoh Sharp Pioneer General Unity Compass
Anchor Beacon Spark Stripe Slack Zoom Square Box Match Indeed Discover Progressive Staples Costco Kroger Macy
Wayfair Chevron Exxon""")
)
SUFFIXES = words(
    "Foods Airlines Group Motors Press Holdings Records Media Steel Insurance Brothers Laboratories Partners"
)
SCHOOLS = words("University College Academy Institute Museum Hospital Orchestra School Bank")
MUSEUM_OF = barred("Modern Art|Natural History|Applied Science|Ancient Music|Public Health")
ADJECTIVES = split_names(
    words("""red long silent open golden broken little iron white blue hidden old wooden green empty round black tall silver
narrow bright heavy painted secret burning frozen""")
)
NOUNS = words("""door table bridge harp gate lamp river garden boat mirror tower wheel clock horse crown window road wall arrow
bell letter rose apple target orange march race game stage table market house bank field stone""")

WEEKDAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words(
    "January February March April May June July August September October November December"
)
SEASONS = words("spring summer autumn winter")
VAGUE = barred("yesterday|last week|last month|last year|two days ago|last Sunday|this morning")
EVENT_HEADS = words(
    "Festival Summit Cup Conference Open Games Marathon Regatta Fair Prize Rally Congress"
)
EVENT_OF = words("Battle Treaty Siege Feast Night Trial Council")

TITLES = words(
    "driver teacher lawyer painter captain doctor senator banker farmer editor minister nurse pilot clerk"
)
TRADES = words(
    "retailer publisher airline bakery insurer brewery manufacturer broadcaster charity union"
)
REGIONS = words("town city village island province district port")
# A relational noun tells the type of the name after it: "the mayor of X", "the widow of X", "the owner of X".
OF_PLACE = words("mayor governor bishop king people")
OF_PERSON = words("widow brother daughter father lawyer dentist landlord")
OF_FIRM = words("chairman owner founder treasurer shareholders spokesman")
OF_EVENT = words("winner referee organizer host")
PLURALS = frozenset({"people", "shareholders", "workers", "critics", "shares"})
MANNERS = barred(
    "quietly|in secret|with great care|in anger|openly|by mistake|reluctantly|in public|at once|by letter"
)
MODALS = words("will may could should might")
