"""Families of tools: names, descriptions, parameters and the phrasings of requests that need them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """Tools of one purpose. A slot kind is name, number, words, ticker or language."""

    names: str
    descriptions: str
    slots: tuple[tuple[str, str], ...]  # (slot kind, names of the parameter)
    phrases: tuple[str, ...]


FAMILIES = (
    Family(
        "get_weather weather current_weather get_current_weather weather_forecast lookup_weather "
        "fetch_weather weather_in weatherTool",
        "Get the weather (of|in|for) a city.|Get the current weather.|Returns the weather (at|of) a place.|"
        "Weather for a location.|",
        (("name", "city location place town where"),),
        (
            "what is the weather in {0}",
            "how is the weather in {0}",
            "what's the weather (in|like in) {0}",
            "weather in {0}",
            "get the weather (in|for|of) {0}",
            "how is the weather in {0} today",
            "will it rain in {0}",
            "is it (sunny|warm|cold) in {0}",
            "tell me the weather in {0}",
            "what is the weather like in {0}",
            "what's the (current |)weather (for|in) {0}",
            "can you check the weather in {0}",
            "what is the temperature in {0}",
        ),
    ),
    Family(
        "add add_numbers sum plus calculate_sum addition add_two_numbers math_add",
        "Add two numbers.|Adds two (integers|numbers).|Returns the sum of two numbers.|The sum of a and b.|",
        (("number", "a x first number1 left"), ("number", "b y second number2 right")),
        (
            "add {0} and {1}",
            "what is {0} + {1}",
            "what is {0} plus {1}",
            "{0} + {1}",
            "calculate {0} + {1}",
            "what is the sum of {0} and {1}",
            "how much is {0} plus {1}",
            "add {1} to {0}",
            "{0} plus {1}",
            "sum {0} and {1}",
        ),
    ),
    Family(
        "multiply multiply_numbers times product mul multiplication calculate_product",
        "Multiply two numbers.|Multiplies two (integers|numbers).|Returns the product of two numbers.|",
        (("number", "a x first number1 left"), ("number", "b y second number2 right")),
        (
            "multiply {0} and {1}",
            "what is {0} * {1}",
            "what is {0} times {1}",
            "{0} * {1}",
            "calculate {0} * {1}",
            "what is the product of {0} and {1}",
            "how much is {0} times {1}",
            "multiply {0} by {1}",
            "{0} times {1}",
        ),
    ),
    Family(
        "search web_search search_web find google internet_search search_internet do_search",
        "Search the web.|Searches the internet.|Find pages about a topic.|Search the web for a query.|",
        (("words", "query q text term search_query"),),
        (
            "search for {0}",
            "search the web for {0}",
            "look up {0}",
            "find {0} on the web",
            "please search {0}",
            "can you search for {0}",
            "google {0}",
            "search: {0}",
            "search the internet for {0}",
            "do a search for {0}",
        ),
    ),
    Family(
        "get_time time current_time get_current_time time_in clock lookup_time world_clock",
        "Get the (current |)time (in|of) a city.|Returns the time at a place.|Tells the time.|"
        "The local time of a place.|",
        (("name", "city timezone location place zone"),),
        (
            "what time is it in {0}",
            "what is the time in {0}",
            "time in {0}",
            "tell me the time in {0}",
            "what's the (current |)time in {0}",
            "how late is it in {0}",
            "get the time (in|for) {0}",
            "current time in {0}",
        ),
    ),
    Family(
        "send_message send_email send_mail message email send_text write_message",
        "Send a message to a person.|Sends an email.|Send a text to someone.|",
        (("name", "to recipient person receiver"), ("words", "text message body content")),
        (
            "send {0} the message {1}",
            "send a message to {0}: {1}",
            "write to {0}: {1}",
            "tell {0}: {1}",
            "send an email to {0} saying {1}",
            "email {0}: {1}",
            "send the text {1} to {0}",
            "message {0}: {1}",
        ),
    ),
    Family(
        "translate translate_text translator translation do_translate",
        "Translate a text.|Translates text into a language.|Translate words to another language.|",
        (("words", "text words content input"), ("language", "language target target_language to lang")),
        (
            "translate {0} to {1}",
            "translate {0} into {1}",
            "what is {0} in {1}",
            "how do you say {0} in {1}",
            "please translate {0} to {1}",
            "say {0} in {1}",
            "translate the words {0} to {1}",
        ),
    ),
    Family(
        "set_timer timer start_timer countdown set_alarm",
        "Set a timer.|Starts a timer for some minutes.|Set a timer in minutes.|",
        (("number", "minutes duration length time"),),
        (
            "set a timer for {0} minutes",
            "timer for {0} minutes",
            "start a timer of {0} minutes",
            "remind me in {0} minutes",
            "set a {0} minute timer",
            "set the timer to {0} minutes",
            "please start a {0} minute timer",
        ),
    ),
    Family(
        "roll_dice dice roll throw_dice random_number",
        "Roll a dice.|Rolls a die with some sides.|Throw a die.|",
        (("number", "sides faces max n"),),
        (
            "roll a dice with {0} sides",
            "roll a {0} sided dice",
            "throw a die with {0} sides",
            "roll a die with {0} sides",
            "please roll a dice with {0} sides",
            "roll a d{0}",
            "throw a {0} sided die",
        ),
    ),
    Family(
        "get_stock_price stock_price stock get_price quote price_of_stock",
        "Get the price of a stock.|Returns the stock price of a ticker.|Current share price.|",
        (("ticker", "symbol ticker stock"),),
        (
            "what is the price of {0}",
            "what is the stock price of {0}",
            "stock price of {0}",
            "get the price of {0}",
            "how much is the {0} stock",
            "price of {0} stock",
            "how is {0} stock doing",
        ),
    ),
    Family(
        "play_song play_music play start_music music_player",
        "Play a song.|Plays music.|Play a song by title.|",
        (("words", "title song name track"),),
        (
            "play the song {0}",
            "play {0}",
            "please play {0}",
            "i want to hear {0}",
            "start the song {0}",
            "play me {0}",
            "put on {0}",
        ),
    ),
    Family(
        "turn_on_light light_on lights switch_light set_light",
        "Turn on the light in a room.|Switch the light on.|Light control.|",
        (("words", "room place where location"),),
        (
            "turn on the light in the {0}",
            "switch on the light in the {0}",
            "light on in the {0}",
            "turn the light in the {0} on",
            "please turn on the {0} light",
            "make light in the {0}",
            "turn on the lights in the {0}",
        ),
    ),
    Family(
        "get_date today current_date get_today date",
        "Get the date.|Returns the date of today.|Today's date.|",
        (),
        (
            "what is the date",
            "what day is it",
            "what is today's date",
            "which day is today",
            "tell me the date",
            "what day is today",
            "get the date",
        ),
    ),
    Family(
        "list_files files ls show_files get_files",
        "List the files.|Lists all files in the folder.|Show files.|",
        (),
        (
            "list the files",
            "show the files",
            "which files are there",
            "list all files",
            "show me the files",
            "what files are there",
            "please list the files",
        ),
    ),
)
