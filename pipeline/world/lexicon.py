"""The names and nouns of the generated world.

`AMBIGUOUS_NAMES` may be a person, a place or an organization; only the sentence decides. A pair of
`ADJECTIVES` and `NOUNS` may be an organization, an event or a plain thing.
"""

from pipeline.world.sampling import split_names


def word_list(text: str) -> list[str]:
    """Split a text at whitespace."""
    return text.split()


def split_bars(text: str) -> list[str]:
    """Split a text at `|`."""
    return text.split("|")


REAL_NAMES = word_list("""
Washington Houston Lincoln Reading Jackson Chelsea Florence Victoria Sydney Charlotte Austin
Orlando Madison Dallas Phoenix Ford Chase Morgan Wells Mercedes Disney Hershey Dell Boeing
Philips Bath Cork Mobile Buffalo Target Apple Shell Oracle Amazon Orange Sprint Rose Hope
Grace Grant Bristol Lancaster Stafford Windsor Kent Essex Sutton Preston Carlisle Chester
Derby Hamilton Wellington Nelson Darwin Adelaide Perth Regina Vernon Marion Cleveland
Jefferson Monroe Columbus Raleigh Dayton Gary Lima Medina Vienna Verona Siena Milan Israel
Jordan Chad Georgia Carolina Dakota Montana Savannah Brooklyn Devon Clyde Avon Trent Shannon
Tyne Diamond Crown Sterling Summit Frontier Liberty Mercury Apollo Atlas Titan Orion Vega Nova
Phoebe Juno Hermes Pearl Ruby Opal Jasper Onyx Amber Forest Heath Cliff Brook Dale Glen Marsh
Ridge Field Banks Waters Rivers Stone Woods Hill Park Hall Church Castle Temple Abbey Bridge
March August June April May Summer Winter Autumn Friday Sunday Will Mark Bill Frank Art Pat
Drew Rob Sue Dean Earl Duke King Prince Bishop Pope Baker Mason Fisher Cook Hunter Carter
Taylor Turner Miller Potter Gardener Shepherd
""")

NAME_STARTS = word_list("""
Vel Tor Bra Kel Mor Dun Har Sel Quin Lor Fen Wal Tas Ost Gri Pol Zan Nor Cal Rud Yar Hel
""")
NAME_ENDS = word_list("""
mar inga don wick stad ova ley ren tia holm nor dale uri eska bury lin ard ello mont vane
""")
INVENTED_NAMES = [start + end for start in NAME_STARTS for end in NAME_ENDS]
CALENDAR_NAMES = frozenset(
    word_list("March April May June August Summer Winter Autumn Friday Sunday")
)
AMBIGUOUS_NAMES = split_names(REAL_NAMES + INVENTED_NAMES)
# "in May" is a time: a calendar word may name a person or a firm, but not a place.
AMBIGUOUS_PLACES = split_names(
    [name for name in REAL_NAMES + INVENTED_NAMES if name not in CALENDAR_NAMES]
)

GIVEN_NAMES = split_names(
    word_list("""
Anna Peter Maria John Laura David Nadia Omar Wei Ingrid Carlos Fatima Tomas Priya Hiro Leila
Samuel Nora Ivan Elena Kofi Amara Lars Sofia Marta Diego Yusuf Hannah Olga Pablo Irene Simon
Ruth Walter Clara Felix Greta Hugo Vera Paris Florence Sydney Austin Charlotte Victoria
Orlando Chelsea Madison Dallas Brooklyn Georgia Jordan Chad Rose Mark Will May Hope Grace
Faith Joy Bill Frank Art Grant April June August Summer Dawn Jack Pat Drew Rob Sue Dean Earl
Hunter Ruby Pearl Amber Jasper Cliff Glen Dale Heath Ray Gene Miles Rich Guy Ivy Lily Daisy
Iris Violet Olive Robin Martin Jay
""")
)
SURNAMES = split_names(
    word_list("""
Hale Novak Okafor Silva Kim Larsen Haddad Moreau Petrov Tanaka Ortiz Mensah Costa Weber
Kowalski Rossi Nguyen Singh Farah Lindgren Castillo Dubois Fischer Yilmaz Ivanova Berg Santos
Walsh Murphy Cohen Adler Brandt Conti Duarte Engel Ferrari Gupta Hansen Ito Jensen Keller
Lopez Marin Nagy Olsen Park Quist Ramos Sato Toth Ueda Vargas Wolf Xu Young Zhou Brown White
Green Black Gray Long Short Rich Strong Sharp Swift Small Bright Savage Noble Wise Moody Stern
Frost Snow Rain Winters Summers Day Knight Page Price Bond Cash Sage Reed Thorn Fox Lamb Crane
Drake Finch Swan Wren
""")
)
TOWNS = split_names(
    word_list("""
Lisbon Nairobi Oslo Hanoi Warsaw Dublin Cairo Quito Riga Tunis Prague Bergen Malaga Kyoto
Accra Izmir Ghent Turin Porto Leipzig Cork Bath Nice Split Bergamo Busan Osaka Odense Tampere
Gdansk Lyon Basel Bern Graz Linz Brno Pecs Varna Zagreb Skopje Tirana Sofia Athens Patras
Corinth Sparta Troy Rome Genoa Parma Modena Essen Worms Speyer Hull Deal Rugby Sandwich Battle
Wells Ware Rye
""")
)
FIRMS = split_names(
    word_list("""
Apple Target Shell Gap Oracle Orange Visa Sprint Amazon Subway Tide Dove Puma Caterpillar
Jaguar Nokia Siemens Toyota Nestle Bosch Bayer Roche Renault Fiat Volvo Saab Acer Canon Ricoh
Sharp Pioneer General Unity Compass Anchor Beacon Spark Stripe Slack Zoom Square Box Match
Indeed Discover Progressive Staples Costco Kroger Macy Wayfair Chevron Exxon
""")
)
FIRM_SUFFIXES = word_list("""
Foods Airlines Group Motors Press Holdings Records Media Steel Insurance Brothers Laboratories
Partners
""")
INSTITUTIONS = word_list(
    "University College Academy Institute Museum Hospital Orchestra School Bank"
)
MUSEUM_SUBJECTS = split_bars(
    "Modern Art|Natural History|Applied Science|Ancient Music|Public Health"
)
ADJECTIVES = split_names(
    word_list("""
red long silent open golden broken little iron white blue hidden old wooden green empty round
black tall silver narrow bright heavy painted secret burning frozen
""")
)
NOUNS = word_list("""
door table bridge harp gate lamp river garden boat mirror tower wheel clock horse crown window
road wall arrow bell letter rose apple target orange march race game stage table market house
bank field stone
""")

WEEKDAYS = word_list("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = word_list("""
January February March April May June July August September October November December
""")
SEASONS = word_list("spring summer autumn winter")
RELATIVE_TIMES = split_bars(
    "yesterday|last week|last month|last year|two days ago|last Sunday|this morning"
)
EVENT_HEADS = word_list("""
Festival Summit Cup Conference Open Games Marathon Regatta Fair Prize Rally Congress
""")
EVENT_OF_HEADS = word_list("Battle Treaty Siege Feast Night Trial Council")

TITLES = word_list("""
driver teacher lawyer painter captain doctor senator banker farmer editor minister nurse pilot
clerk
""")
TRADES = word_list("""
retailer publisher airline bakery insurer brewery manufacturer broadcaster charity union
""")
REGIONS = word_list("town city village island province district port")
# A relational noun determines the type of its name: "the mayor of X", "the widow of X".
PLACE_RELATIONS = word_list("mayor governor bishop king people")
PERSON_RELATIONS = word_list("widow brother daughter father lawyer dentist landlord")
FIRM_RELATIONS = word_list("chairman owner founder treasurer shareholders spokesman")
EVENT_RELATIONS = word_list("winner referee organizer host")
PLURAL_NOUNS = frozenset({"people", "shareholders", "workers", "critics", "shares"})
MANNERS = split_bars(
    "quietly|in secret|with great care|in anger|openly|by mistake|reluctantly|in public|"
    "at once|by letter"
)
MODALS = word_list("will may could should might")
