package wire

// The members that matter of the frame itself; see place.
const (
	topType = iota
	topData
	topReference
	topFeature
	topConfirmation
	topID
	topCount
)

// The members that matter of its data; see place.
const (
	dataAppID = iota
	dataUserID
	dataToken
	dataFeatures
	dataTo
	dataContent
	dataID
	dataCount
	dataUpTo
	dataFields
)

// scope says whose members an object's are.
type scope uint8

const (
	scopeOther scope = iota // nobody's: its members do not matter
	scopeTop
	scopeData
)

// place says where the value of a member belongs; -1 for one that does not
// matter.
func (s scope) place(name []byte) int {
	switch {
	case s == scopeTop:
		return topPlace(name)
	case s == scopeData:
		return dataPlace(name)
	default:
		return -1
	}
}

func topPlace(name []byte) int {
	switch string(name) {
	case "type":
		return topType
	case "data":
		return topData
	case "reference":
		return topReference
	case "feature":
		return topFeature
	case "confirmationEnabled":
		return topConfirmation
	case "id":
		return topID
	default:
		return -1
	}
}

func dataPlace(name []byte) int {
	switch string(name) {
	case "appId":
		return dataAppID
	case "userId":
		return dataUserID
	case "token":
		return dataToken
	case "features":
		return dataFeatures
	case "to":
		return dataTo
	case "content":
		return dataContent
	case "id":
		return dataID
	case "count":
		return dataCount
	case "upTo":
		return dataUpTo
	default:
		return -1
	}
}

// find is place for a name as it stands in the input.
func (s scope) find(key value) int {
	switch {
	case s == scopeOther || key.surrogate:
		return -1
	case key.escaped:
		return s.place([]byte(key.text()))
	default:
		return s.place(key.inner())
	}
}
