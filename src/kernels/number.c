/* Numbers of JSON, exactly: a decimal of up to 19 digits and a power of ten that integers of 128 bits hold. */
#include "kernels.h"

#include <float.h>

/* Beyond it a product of 19 digits and a power of five does not fit 127 bits. */
enum { MOST_POWER = 27, MOST_DIGITS = 19 };

/* Powers of ten that are doubles: dividing a whole number below 2^53 by one rounds once, and so rightly. */
static const double TENS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                              1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
enum { MOST_TEN = 22 };

static const uint64_t FIVES[MOST_POWER + 1] = {1ULL,
                                               5ULL,
                                               25ULL,
                                               125ULL,
                                               625ULL,
                                               3125ULL,
                                               15625ULL,
                                               78125ULL,
                                               390625ULL,
                                               1953125ULL,
                                               9765625ULL,
                                               48828125ULL,
                                               244140625ULL,
                                               1220703125ULL,
                                               6103515625ULL,
                                               30517578125ULL,
                                               152587890625ULL,
                                               762939453125ULL,
                                               3814697265625ULL,
                                               19073486328125ULL,
                                               95367431640625ULL,
                                               476837158203125ULL,
                                               2384185791015625ULL,
                                               11920928955078125ULL,
                                               59604644775390625ULL,
                                               298023223876953125ULL,
                                               1490116119384765625ULL,
                                               7450580596923828125ULL};

typedef unsigned __int128 Wide;

static inline int bits_of(Wide number)
{
    uint64_t high = (uint64_t)(number >> 64);
    return high ? 128 - __builtin_clzll(high) : 64 - __builtin_clzll((uint64_t)number);
}

/* Returns digits * 10^power, to the nearest double, ties to even. */
static double scaled(uint64_t digits, int power)
{
    Wide whole;
    int exponent;
    bool rest = false;
    if (power >= 0) {
        whole = (Wide)digits * FIVES[power];
        exponent = power;
    } else {
        /* Both begin with their highest bit, so that the quotient fits 64 bits and has at least 62. */
        uint64_t five = FIVES[-power];
        int above = __builtin_clzll(digits), below = __builtin_clzll(five);
        Wide number = (Wide)(digits << above) << 63;
        five <<= below;
        uint64_t quotient = (uint64_t)(number / five);
        rest = number != (Wide)quotient * five;
        whole = quotient;
        exponent = power + below - above - 63;
    }
    int drop = bits_of(whole) - DBL_MANT_DIG;
    if (drop > 0) {
        Wide half = (Wide)1 << (drop - 1), left = whole & ((half << 1) - 1);
        whole >>= drop;
        exponent += drop;
        whole += left > half || (left == half && (rest || (whole & 1)));
    }
    /* Two to the exponent, which is far from both ends of what a double holds. */
    uint64_t bits = (uint64_t)(exponent + DBL_MAX_EXP - 1) << (DBL_MANT_DIG - 1);
    double two;
    memcpy(&two, &bits, sizeof two);
    return (double)(uint64_t)whole * two;
}

static inline bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* What a number says without its sign: digits * 10^power. */
typedef struct {
    uint64_t digits;
    ptrdiff_t power;
} Decimal;

/* Reads what follows a sign, one digit after the other. */
static const char *read_any(const char *p, bool minus, Decimal *found)
{
    if (!is_digit(*p) || (*p == '0' && is_digit(p[1])))
        return NULL;
    uint64_t digits = 0;
    ptrdiff_t many = 0, power = 0;
    p += *p == '0';
    for (; is_digit(*p); p++, many++)
        digits = digits * 10 + (uint64_t)(*p - '0');
    if (*p == '.') {
        const char *point = ++p;
        for (; *p == '0' && !many; p++)
            ;
        for (; is_digit(*p); p++, many++)
            digits = digits * 10 + (uint64_t)(*p - '0');
        power = point - p;
        if (!power)
            return NULL;
    } else if (minus && !many) {
        /* Whether a whole number can be nothing and below it is a question for others. */
        return NULL;
    }
    if (many > MOST_DIGITS)
        return NULL;
    if ((*p | 0x20) == 'e') {
        p++;
        bool down = *p == '-';
        p += down || *p == '+';
        if (!is_digit(*p))
            return NULL;
        ptrdiff_t given = 0;
        for (; is_digit(*p); p++) {
            given = given * 10 + (*p - '0');
            if (given > 100)
                return NULL;
        }
        power += down ? -given : given;
    }
    *found = (Decimal){digits, power};
    return p;
}

/* Digits that are read at once: a word of them. */
enum { WORD = 8 };

static const uint64_t WHOLE_TENS[WORD + 1] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};

/* Takes a word of characters, the first in the lowest byte: a digit is what it says, and anything else more than 9. */
static inline uint64_t word_at(const char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word ^ 0x3030303030303030;
}

/* Sets the highest bit of each byte that is no digit, and no other; no sum of a byte reaches the next. */
static inline uint64_t others_of(uint64_t word)
{
    return (((word & 0x7f7f7f7f7f7f7f7f) + 0x7676767676767676) | word) & 0x8080808080808080;
}

/* Returns how many digits stand before the first byte that is none. */
static inline unsigned digits_before(uint64_t others) { return (unsigned)__builtin_ctzll(others) / 8; }

/* Returns what the first digits say, one to eight: three times each pair is made a number of twice the width. */
static inline uint64_t said_by(uint64_t word, unsigned many)
{
    word <<= 8 * (WORD - many);
    word = (word * (1 + (10 << 8))) >> 8 & 0x00ff00ff00ff00ff;
    word = (word * (1 + (100 << 16))) >> 16 & 0x0000ffff0000ffff;
    return (word * (1 + ((uint64_t)10000 << 32))) >> 32;
}

/* Appends the digits at `p`, and returns how many; 0 where there is none, too many, or the end too near for a word. */
static inline int take_digits(const char *p, const char *end, uint64_t *digits)
{
    for (int many = 0; many <= MOST_DIGITS && end - p >= WORD; p += WORD) {
        uint64_t word = word_at(p), others = others_of(word);
        unsigned more = others ? digits_before(others) : WORD;
        if (more)
            *digits = *digits * WHOLE_TENS[more] + said_by(word, more);
        many += (int)more;
        if (more < WORD)
            return many <= MOST_DIGITS ? many : 0;
    }
    return 0;
}

/* Reads what follows a sign a word at a time; nothing at the very end of a body, and nothing with an exponent. */
static const char *read_words(const char *p, const char *end, bool minus, Decimal *found)
{
    uint64_t digits = 0;
    int behind = 0, many = take_digits(p, end, &digits);
    if (!many || (many > 1 && *p == '0'))
        return NULL;
    p += many;
    if (*p == '.') {
        if (!(behind = take_digits(++p, end, &digits)))
            return NULL;
        p += behind;
    } else if (minus && !digits)
        return NULL;
    if (many + behind > MOST_DIGITS || (*p | 0x20) == 'e')
        return NULL;
    *found = (Decimal){digits, -behind};
    return p;
}

/* Sets the sign, which cannot be guessed, and so without a branch. */
static inline double with_sign(double size, uint64_t minus)
{
    uint64_t bits;
    memcpy(&bits, &size, sizeof bits);
    bits |= minus << 63;
    memcpy(&size, &bits, sizeof bits);
    return size;
}

/* Reads any number: a short one too, where the end is near. */
static __attribute__((noinline)) const char *read_long(const char *p, const char *end, double *value)
{
    bool minus = *p == '-';
    p += minus;
    Decimal found;
    const char *after = read_words(p, end, minus, &found);
    if (after == NULL && (after = read_any(p, minus, &found)) == NULL)
        return NULL;
    ptrdiff_t power = found.power;
    double size = 0;
    if (FLT_EVAL_METHOD == 0 && found.digits <= (uint64_t)1 << DBL_MANT_DIG && power >= -MOST_TEN && power <= MOST_TEN)
        size = power < 0 ? (double)found.digits / TENS[-power] : (double)found.digits * TENS[power];
    else if (found.digits && (power < -MOST_POWER || power > MOST_POWER))
        return NULL;
    else if (found.digits)
        size = scaled(found.digits, (int)power);
    *value = with_sign(size, minus);
    return after;
}

const char *read_number(const char *p, const char *end, double *value)
{
    if (FLT_EVAL_METHOD != 0 || end - p < WORD)
        return read_long(p, end, value);
    uint64_t minus = *p == '-';
    /* Both are taken, so that what follows does not wait for the sign. */
    uint64_t word = (word_at(p) & (minus - 1)) | (word_at(p + 1) & -minus);
    uint64_t others = others_of(word), beyond = others & (others - 1);
    if (!beyond)
        return read_long(p, end, value);
    unsigned point = digits_before(others), all = digits_before(beyond);
    const char *digits = p + minus, *after = digits + all;
    if (digits[point] != '.' || !point || (point > 1 && *digits == '0') || all - point < 2 || (*after | 0x20) == 'e')
        return read_long(p, end, value);
    /* A word has all of it: its point is taken out. */
    uint64_t whole = ((uint64_t)1 << 8 * point) - 1;
    uint64_t said = said_by((word & whole) | (word >> 8 & ~whole), all - 1);
    *value = with_sign((double)(int64_t)said / TENS[all - point - 1], minus);
    return after;
}
