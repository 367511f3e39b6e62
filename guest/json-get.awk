# Prints the scalar at a JSON pointer. For images without jq or Python; runs in mawk, gawk and busybox awk.
#
#   JSON_POINTER=/data/x/url LC_ALL=C awk -f json-get.awk FILE
#
# Exit status: 0 found (a string is printed decoded), 1 not there or not a scalar, 2 not JSON.

BEGIN {
  want = ENVIRON["JSON_POINTER"]
  for (n = 0; n < 16; n++) hex[substr("0123456789abcdef", n + 1, 1)] = n
  for (n = 10; n < 16; n++) hex[substr("0123456789ABCDEF", n + 1, 1)] = n
  plain["\""] = "\""; plain["\\"] = "\\"; plain["/"] = "/"
  plain["b"] = "\b"; plain["f"] = "\f"; plain["n"] = "\n"; plain["r"] = "\r"; plain["t"] = "\t"
}

{ text = text $0 "\n" }

END {
  at = 1
  end = length(text)
  value("", 0)
  blanks()
  if (bad || at <= end) exit 2
  if (!found) exit 1
  printf "%s\n", answer
}

# awk cannot leave nested calls, so a fault moves to the end, where every function stops.
function fail() { bad = 1; at = end + 1; return "" }

function blanks(  c) {
  while (at <= end) {
    c = substr(text, at, 1)
    if (c != " " && c != "\t" && c != "\n" && c != "\r") return
    at++
  }
}

function take(pointer, scalar) {
  if (pointer == want) { found = 1; answer = scalar }
}

function value(pointer, depth,  c, key, n, word) {
  blanks()
  if (depth > 64 || at > end) return fail()
  if (pointer == want) found = 0
  c = substr(text, at, 1)
  if (c == "\"") { take(pointer, string()); return "" }
  if (c == "{" || c == "[") {
    at++
    blanks()
    if (substr(text, at, 1) == (c == "{" ? "}" : "]")) { at++; return "" }
    for (n = 0; at <= end; n++) {
      key = n
      if (c == "{") {
        blanks()
        if (substr(text, at, 1) != "\"") return fail()
        key = string()
        gsub(/~/, "~0", key)
        gsub(/\//, "~1", key)
        blanks()
        if (substr(text, at, 1) != ":") return fail()
        at++
      }
      value(pointer "/" key, depth + 1)
      blanks()
      if (substr(text, at, 1) == ",") { at++; continue }
      if (substr(text, at, 1) != (c == "{" ? "}" : "]")) return fail()
      at++
      return ""
    }
    return fail()
  }
  word = substr(text, at, 64)
  if (!match(word, /^(true|false|null|-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?)/)) return fail()
  word = substr(word, 1, RLENGTH)
  at += RLENGTH
  take(pointer, word)
  return ""
}

function code(  n, i, c) {
  n = 0
  for (i = 0; i < 4; i++) {
    c = substr(text, at + i, 1)
    if (!(c in hex)) { fail(); return 1 }
    n = n * 16 + hex[c]
  }
  at += 4
  return n
}

function utf8(n) {
  if (n < 128) return sprintf("%c", n)
  if (n < 2048) return sprintf("%c%c", 192 + int(n / 64), 128 + n % 64)
  if (n < 65536) return sprintf("%c%c%c", 224 + int(n / 4096), 128 + int(n / 64) % 64, 128 + n % 64)
  return sprintf("%c%c%c%c", 240 + int(n / 262144), 128 + int(n / 4096) % 64, 128 + int(n / 64) % 64, 128 + n % 64)
}

function string(  out, c, n, low) {
  out = ""
  at++
  while (at <= end) {
    c = substr(text, at, 1)
    at++
    if (c == "\"") return out
    if (c == "\n") return fail()
    if (c != "\\") { out = out c; continue }
    c = substr(text, at, 1)
    at++
    if (c in plain) { out = out plain[c]; continue }
    if (c != "u") return fail()
    n = code()
    if (n >= 55296 && n < 56320) {
      if (substr(text, at, 2) != "\\u") return fail()
      at += 2
      low = code()
      if (low < 56320 || low > 57343) return fail()
      n = 65536 + (n - 55296) * 1024 + low - 56320
    } else if (n >= 56320 && n < 57344) return fail()
    # No text of ours holds NUL, and awk may cut there.
    if (n == 0) return fail()
    out = out utf8(n)
  }
  return fail()
}
