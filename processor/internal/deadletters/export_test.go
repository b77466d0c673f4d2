package deadletters

// What the tests look at.
var (
	Name      = name
	ParseName = parseName
)
