use std::collections::BTreeSet;

use super::*;

type Rgb = (u8, u8, u8);

/// What a terminal makes of the 16 colours.
struct Palette {
    name: &'static str,
    background: Rgb,
    foreground: Rgb,
    /// In the order of their numbers.
    colours: [Rgb; 16],
}

const fn rgb(hex: u32) -> Rgb {
    let [_, red, green, blue] = hex.to_be_bytes();
    (red, green, blue)
}

const fn all(hex: [u32; 16]) -> [Rgb; 16] {
    let mut colours = [(0, 0, 0); 16];
    let mut index = 0;
    while index < 16 {
        colours[index] = rgb(hex[index]);
        index += 1;
    }
    colours
}

/// xterm, XTerm-col.ad.
const XTERM: [Rgb; 16] = all([
    0x00_0000, 0xcd_0000, 0x00_cd00, 0xcd_cd00, 0x00_00ee, 0xcd_00cd, 0x00_cdcd, 0xe5_e5e5,
    0x7f_7f7f, 0xff_0000, 0x00_ff00, 0xff_ff00, 0x5c_5cff, 0xff_00ff, 0x00_ffff, 0xff_ffff,
]);
/// GNOME Terminal, palette "GNOME" of src/profile-editor.cc, the default for VTE's terminals.
const GNOME: [Rgb; 16] = all([
    0x17_1421, 0xc0_1c28, 0x26_a269, 0xa2_734c, 0x12_488b, 0xa3_47ba, 0x2a_a1b3, 0xd0_cfcc,
    0x5e_5c64, 0xf6_6151, 0x33_da7a, 0xe9_ad0c, 0x2a_7bde, 0xc0_61cb, 0x33_c7de, 0xff_ffff,
]);
/// Solarized, the table of values of its README.
const SOLARIZED: [Rgb; 16] = all([
    0x07_3642, 0xdc_322f, 0x85_9900, 0xb5_8900, 0x26_8bd2, 0xd3_3682, 0x2a_a198, 0xee_e8d5,
    0x00_2b36, 0xcb_4b16, 0x58_6e75, 0x65_7b83, 0x83_9496, 0x6c_71c4, 0x93_a1a1, 0xfd_f6e3,
]);
/// The Linux console (drivers/tty/vt/vt.c).
const CONSOLE: [Rgb; 16] = all([
    0x00_0000, 0xaa_0000, 0x00_aa00, 0xaa_5500, 0x00_00aa, 0xaa_00aa, 0x00_aaaa, 0xaa_aaaa,
    0x55_5555, 0xff_5555, 0x55_ff55, 0xff_ff55, 0x55_55ff, 0xff_55ff, 0x55_ffff, 0xff_ffff,
]);

const PALETTES: [Palette; 7] = [
    Palette {
        name: "xterm, light",
        background: rgb(0xff_ffff),
        foreground: rgb(0x00_0000),
        colours: XTERM,
    },
    Palette {
        name: "xterm, dark",
        background: rgb(0x00_0000),
        foreground: rgb(0xe5_e5e5),
        colours: XTERM,
    },
    Palette {
        name: "GNOME, light",
        background: rgb(0xff_ffff),
        foreground: rgb(0x17_1421),
        colours: GNOME,
    },
    Palette {
        name: "GNOME, dark",
        background: rgb(0x17_1421),
        foreground: rgb(0xd0_cfcc),
        colours: GNOME,
    },
    Palette {
        name: "Solarized, light",
        background: rgb(0xfd_f6e3),
        foreground: rgb(0x65_7b83),
        colours: SOLARIZED,
    },
    Palette {
        name: "Solarized, dark",
        background: rgb(0x00_2b36),
        foreground: rgb(0x83_9496),
        colours: SOLARIZED,
    },
    Palette {
        name: "Linux console",
        background: rgb(0x00_0000),
        foreground: rgb(0xaa_aaaa),
        colours: CONSOLE,
    },
];

/// Least contrast of text that carries meaning.
const CONTRAST_MIN: f64 = 3.0;

/// Relative luminance (WCAG 2.2).
fn luminance((red, green, blue): Rgb) -> f64 {
    let linear = |part: u8| {
        let part = f64::from(part) / 255.0;
        match part <= 0.04045 {
            true => part / 12.92,
            false => ((part + 0.055) / 1.055).powf(2.4),
        }
    };
    0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
}

/// Contrast ratio (WCAG 2.2).
fn contrast(one: Rgb, other: Rgb) -> f64 {
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

/// Number of a colour of the palette; `None` for the terminal's own.
fn number(colour: Color) -> Option<usize> {
    Some(match colour {
        Color::Reset => return None,
        Color::Black => 0,
        Color::Red => 1,
        Color::Green => 2,
        Color::Yellow => 3,
        Color::Blue => 4,
        Color::Magenta => 5,
        Color::Cyan => 6,
        Color::Gray => 7,
        Color::DarkGray => 8,
        Color::LightRed => 9,
        Color::LightGreen => 10,
        Color::LightYellow => 11,
        Color::LightBlue => 12,
        Color::LightMagenta => 13,
        Color::LightCyan => 14,
        Color::White => 15,
        Color::Rgb(..) | Color::Indexed(_) => panic!("{colour} is not the terminal's own"),
    })
}

/// Why a style may be unreadable somewhere.
pub(crate) fn fault(style: Style) -> Option<String> {
    if !matches!(style.bg, None | Some(Color::Reset)) {
        return Some(format!("{style:?} sets a background"));
    }
    // Terminals draw it in different ways, some of them too faint.
    if style.add_modifier.contains(Modifier::DIM) {
        return Some(format!("{style:?} is dim"));
    }
    let own = number(style.fg.unwrap_or(Color::Reset));
    let is_bold = style.add_modifier.contains(Modifier::BOLD);
    for palette in &PALETTES {
        // Some terminals draw bold text in the bright variant of its colour. Reversed text has the
        // same contrast.
        let bright = own.filter(|it| is_bold && *it < 8).map(|it| it + 8);
        let shown = match own {
            None => vec![palette.foreground],
            Some(_) => own
                .into_iter()
                .chain(bright)
                .map(|it| palette.colours[it])
                .collect(),
        };
        for colour in shown {
            let ratio = contrast(colour, palette.background);
            if ratio < CONTRAST_MIN {
                return Some(format!("{style:?} in {}: {ratio:.2}", palette.name));
            }
        }
    }
    None
}

fn styles(paint: Paint) -> [Style; 6] {
    [
        paint.fallen(),
        paint.bad(),
        paint.worth_a_look(),
        paint.title(),
        paint.cursor(),
        Style::new(),
    ]
}

#[test]
fn every_style_is_readable_on_light_and_on_dark() {
    for has_colour in [true, false] {
        for style in styles(Paint { has_colour }) {
            assert_eq!(fault(style), None);
        }
    }
    // What this test is for.
    for colour in [
        Color::Yellow,
        Color::Green,
        Color::Cyan,
        Color::Blue,
        Color::Red,
    ] {
        assert!(fault(Style::new().fg(colour)).is_some(), "{colour}");
    }
    assert!(fault(Style::new().bg(Color::Black)).is_some());
}

#[test]
fn contrast_is_computed_as_the_standard_says() {
    let near = |ratio: f64, wanted: f64| (ratio - wanted).abs() < 0.01;
    assert!(near(contrast(rgb(0), rgb(0xff_ffff)), 21.0));
    assert!(near(contrast(rgb(0x77_7777), rgb(0xff_ffff)), 4.48));
}

#[test]
fn nothing_has_a_colour_without_colours() {
    let used: BTreeSet<String> = styles(Paint { has_colour: false })
        .iter()
        .filter_map(|style| style.fg.map(|it| it.to_string()))
        .collect();
    assert_eq!(used, BTreeSet::new());
}
